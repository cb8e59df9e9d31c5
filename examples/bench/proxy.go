package bench

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// copyBuffer is what ReverseProxy itself would allocate for each answer, in bytes.
const copyBuffer = 32 << 10

// Proxy is the least that could stand in the gateway's place: the standard
// library's reverse proxy, set up as well as it can be. It keeps a connection to
// the target for each of the callers' and passes every write on at once.
func Proxy(target *url.URL, connections int) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			MaxIdleConns: connections, MaxIdleConnsPerHost: connections, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		FlushInterval: -1,
		BufferPool:    &bufferPool{},
	}
}

// bufferPool implements httputil.BufferPool.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copyBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, copyBuffer)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[copyBuffer]byte)(b)) }
