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
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			MaxIdleConns: connections, MaxIdleConnsPerHost: connections, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		FlushInterval: -1,
		BufferPool:    &bufferPool{},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Otherwise the server closes the request's body when the answer begins. Under
		// load that can be before the transport has seen the body's end, and then it
		// takes the connection down with the answer on it.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, "this proxy is for HTTP/1.1", http.StatusHTTPVersionNotSupported)
			return
		}
		proxy.ServeHTTP(w, r)
	})
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
