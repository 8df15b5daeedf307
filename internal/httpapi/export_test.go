package httpapi

import "net/http"

// OwnTransport returns the transport that the client has made for itself.
func (c *Client) OwnTransport() *http.Transport { return c.own }
