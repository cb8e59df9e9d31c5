package upstream

import (
	"context"
	"net/http"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// userInfo asks who an access token belongs to (OIDC Core, section 5.3, and what
// services of plain OAuth 2.0 have in its place).
func (p *Provider) userInfo(ctx context.Context, url, method string, headers map[string]string, token secret.String) (endpoint.Document, error) {
	header := http.Header{}
	for name, value := range headers {
		header.Set(name, value)
	}
	var doc endpoint.Document
	err := p.client.Do(ctx, endpoint.Request{
		Operation: "userinfo", Method: method, URL: url, Header: header, Bearer: token,
	}, func(resp *endpoint.Response) error {
		var err error
		if doc, err = endpoint.ParseJSON(resp.Body); err != nil {
			return p.client.Malformed(err, "userinfo answer")
		}
		return nil
	})
	return doc, err
}
