package app

import (
	"net/http"

	"chatelaine.dev/examples/front"
)

type frontCmd struct {
	Addr string `required:"" placeholder:"HOST:PORT" help:"Where to listen."`
	To   string `required:"" placeholder:"HOST:PORT" help:"The replicas: all addresses that DNS has for HOST."`
	common
}

func (c *frontCmd) build(e env) (public, admin http.Handler, err error) {
	public, err = front.New(front.Config{To: c.To, Logger: e.tel.Logger})
	return public, http.NotFoundHandler(), err // it has no switches
}
