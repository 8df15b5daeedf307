// Runs before the first paint, so that a chosen theme does not flash the other one.
"use strict";
try {
  const chosen = localStorage.getItem("external-server.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* no storage: the system decides */ }
