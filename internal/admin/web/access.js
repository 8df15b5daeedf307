// The dialog that asks for a bearer token, and the one that confirms an action.
import { act, token } from "./api.js";
import { h, show, text, toast } from "./dom.js";

let open = null; // the token dialog, while it is shown

/** closeDialogs ends the dialogs of a page that is left. The one without which the server
 * answers nothing stays. */
export function closeDialogs() {
  for (const d of document.querySelectorAll("dialog[open]")) if (!open?.needed(d)) d.close();
}

/** askForToken shows the dialog once; asked tells that the user wants it. */
export function askForToken(store, asked = false) {
  if (open) {
    open.problem();
    return;
  }
  if (!asked && store.dismissed) return;
  const input = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", "aria-describedby": "token-why" });
  const why = h("p", { id: "token-why", role: "status" });
  let submitted = false; // before that, what the server grants is about the old token
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "token-title" },
    h("form", {
      on: {
        submit: (e) => {
          e.preventDefault();
          store.dismissed = false;
          submitted = true;
          text(why, "Asking the server …");
          store.setToken(input.value.trim());
        },
      },
    },
    h("h2", { id: "token-title", text: "Access" }),
    why,
    h("label", { for: "token", text: "Bearer token" }), input,
    h("p", { class: "muted", text: "A token of the block “admin” of the configuration. It is kept in this tab only." }),
    h("div", { class: "row end" },
      token.get() ? h("button", { type: "button", text: "Forget token", on: { click: () => { store.dismissed = false; shut(); store.setToken(""); } } }) : null,
      h("button", { type: "button", text: "Close", on: { click: () => { store.dismissed = true; shut(); } } }),
      h("button", { type: "submit", class: "main", text: "Use token" }))));
  const problem = () => {
    const you = store.server?.you;
    text(why, store.access === "refused" ? store.problem?.message ?? "" : you ? `You have the role ${you.role}${you.token ? ` by the token “${you.token}”` : ""}.` : "");
    why.classList.toggle("bad", store.access === "refused");
  };
  const granted = () => { if (submitted && store.access === "granted" && store.server?.you) shut(); };
  const mine = { problem, needed: (d) => d === dialog && store.access === "refused" };
  // Not left to the close event, which comes later: a refusal that came before it would
  // find the dialog still open and show none.
  const shut = () => {
    if (open === mine) open = null;
    store.removeEventListener("server", granted);
    store.removeEventListener("access", granted);
    dialog.close();
    dialog.remove();
  };
  store.addEventListener("server", granted);
  store.addEventListener("access", granted);
  dialog.addEventListener("cancel", () => { store.dismissed = true; });
  dialog.addEventListener("close", shut);
  open = mine;
  problem();
  document.body.append(dialog);
  dialog.showModal();
  input.focus();
}

/** confirmAction asks before something is changed, does it, and shows a refusal where
 * it was asked for, or where failed(error) has shown it. shown is what would be sent. */
export function confirmAction(store, { title, body, shown, button, method = "POST", path, data, done, failed }) {
  const problem = h("p", { class: "bad", role: "alert", hidden: true });
  const go = h("button", { type: "submit", class: "danger", text: button });
  const other = h("button", { type: "button", text: "Use another token", hidden: true, on: { click: () => { dialog.close(); askForToken(store, true); } } });
  const cancel = h("button", { type: "button", text: "Cancel", on: { click: () => dialog.close() } });
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "confirm-title" },
    h("form", {
      on: {
        submit: async (e) => {
          e.preventDefault();
          go.disabled = true;
          try {
            const answer = await act(method, path, data);
            dialog.close();
            toast(answer.result);
            done?.();
          } catch (error) {
            const refused = error.status === 401 || error.status === 403;
            if (!refused && failed?.(error)) { dialog.close(); return; }
            text(problem, refused ? `Refused: ${error.message}.` : error.message);
            show(problem, true);
            show(other, refused);
            go.disabled = refused;
            if (refused) other.focus();
          }
        },
      },
    },
    h("h2", { id: "confirm-title", text: title }),
    h("p", { text: body }),
    shown ? h("pre", { tabindex: "0", "aria-label": "What is sent", text: shown }) : null,
    problem,
    h("div", { class: "row end" }, other, cancel, go)));
  if (store.role && store.role !== "operate") {
    text(problem, `You have the role “${store.role}”${store.server.you.token ? ` by the token “${store.server.you.token}”` : ""}; this needs the role “operate”.`);
    show(problem, true);
    show(other, true);
  }
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  cancel.focus();
}
