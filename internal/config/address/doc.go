// Package address says what text in a configuration means as an address: of a broker, of a
// listener, or as a URL. It resolves no name and opens nothing.
package address
