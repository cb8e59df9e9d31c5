package demo

import (
	"net/url"
	"strconv"
	"strings"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/stack"
)

// part is what the browser did on its way through one account: first our own
// consent page, then a provider with the callback that it sends the browser to.
type part struct {
	host  string
	steps []browse.Step
}

// parts divides a walk by the hosts of its steps. A step at home, where the walk
// began, belongs to the part that led there.
func parts(steps []browse.Step) []part {
	var all []part
	for _, s := range steps {
		host := hostOf(s.URL)
		if n := len(all); n == 0 || host != all[0].host && host != all[n-1].host {
			all = append(all, part{host: host})
		}
		last := &all[len(all)-1]
		last.steps = append(last.steps, s)
	}
	return all
}

// lines tells a part in one line for each thing that the person did, with the
// redirects that followed and the page that they ended at.
func (p part) lines(first string) []string {
	var all []string
	host := ""
	for i, s := range p.steps {
		switch {
		case s.Pressed != "":
			all, host = append(all, pad("presses "+strconv.Quote(s.Pressed), 31)+s.URL), hostOf(s.URL)
		case i == 0:
			all, host = append(all, pad(first, 31)+s.URL), hostOf(s.URL)
		default:
			all[len(all)-1] += " → " + within(host, s.URL)
			host = hostOf(s.URL)
		}
		if s.Title != "" {
			all[len(all)-1] += ", " + strconv.Quote(s.Title)
		}
	}
	return all
}

// within leaves out of a URL the host that the line is at anyway.
func within(host, address string) string {
	if hostOf(address) == host {
		_, path, _ := strings.Cut(address, host)
		return path
	}
	return address
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// provider is the name of the provider at a host.
func provider(ports stack.Ports, host string) string {
	switch _, port, _ := strings.Cut(host, ":"); port {
	case strconv.Itoa(ports.Corp):
		return "corp"
	case strconv.Itoa(ports.Octohub):
		return "octohub"
	}
	return host
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(1, width-len(text)))
}
