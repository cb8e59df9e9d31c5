package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

func names(backends ...string) Names {
	return Names{Separator: "_", Known: func(b string) bool { return slices.Contains(backends, b) }}
}

func page(t *testing.T, kind *Kind, result string) *Page {
	t.Helper()
	m, err := jsonrpc.Parse([]byte(`{"jsonrpc":"2.0","id":1,"result":` + result + `}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePage(kind, &m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestANameLeadsToItsBackend(t *testing.T) {
	t.Parallel()
	n := names("a", "a-b", "repos")
	tests := []struct {
		name, backend, inner string
		ok                   bool
	}{
		{"repos_list_issues", "repos", "list_issues", true},
		{"a-b_x", "a-b", "x", true},
		{"a_b_x", "a", "b_x", true},
		{"repos_", "repos", "", true},
		{"repos", "", "", false},
		{"other_x", "", "", false},
		{"_x", "", "", false},
		{"", "", "", false},
	}
	for _, tt := range tests {
		backend, inner, ok := n.Split(tt.name)
		if backend != tt.backend || inner != tt.inner || ok != tt.ok {
			t.Errorf("Split(%q) = %q, %q, %v; want %q, %q, %v", tt.name, backend, inner, ok, tt.backend, tt.inner, tt.ok)
		}
	}
	n.Separator = "-"
	if backend, inner, ok := n.Split("a-b-x"); backend != "a-b" || inner != "x" || !ok {
		t.Errorf(`Split("a-b-x") = %q, %q, %v; want the longest name`, backend, inner, ok)
	}
}

func TestToolsKeepEveryByteButTheirName(t *testing.T) {
	t.Parallel()
	m := Merged{Kind: Tools, Names: names("payroll", "repos"), Complete: true, Parts: []Part{
		{Backend: "payroll", Page: page(t, Tools, `{"tools":[{"name":"get", "inputSchema" : {"name":"x","a":1.0e2}},{"description":"no name"},{"name":"twice","name":"again"}]}`)},
		{Backend: "repos", Page: page(t, Tools, `{"tools":[{"title":"\u00e9","name":"g\"et"}],"nextCursor":"n"}`)},
	}}
	got, skipped := m.AppendItems(nil)
	want := `[{"name":"payroll_get", "inputSchema" : {"name":"x","a":1.0e2}},{"title":"\u00e9","name":"repos_g\"et"}]`
	if string(got) != want || skipped != 0 {
		t.Errorf("AppendItems() = %s, %d; want %s, 0", got, skipped, want)
	}
	if c := m.Cursor(); c == nil || len(c.Next) != 1 || c.Next[0] != (Position{"repos", "n"}) {
		t.Errorf("Cursor() = %+v, want the one of repos", c)
	}
}

func TestAToolThatWouldReachAnotherBackendIsNotShown(t *testing.T) {
	t.Parallel()
	n := names("a", "a-b")
	n.Separator = "-"
	m := Merged{Kind: Tools, Names: n, Parts: []Part{
		{Backend: "a", Page: page(t, Tools, `{"tools":[{"name":"b-steal"},{"name":"x"}]}`)},
		{Backend: "a-b", Page: page(t, Tools, `{"tools":[{"name":"steal"}]}`)},
	}}
	got, skipped := m.AppendItems(nil)
	if want := `[{"name":"a-x"},{"name":"a-b-steal"}]`; string(got) != want || skipped != 1 {
		t.Errorf("AppendItems() = %s, %d; want %s, 1", got, skipped, want)
	}
}

func TestOneURIOfTwoBackendsLeadsToBoth(t *testing.T) {
	t.Parallel()
	a := page(t, Resources, `{"resources":[{"uri":"file:///x","name":"ax"},{"uri":"ui://a"},{"uri":"file:///x","name":"again"}]}`)
	b := page(t, Resources, `{"resources":[{"uri":"file:///x","name":"bx"},{"uri":"chatelaine+a:file:///y"}]}`)
	m := Merged{Kind: Resources, Names: names("a", "b"), Parts: []Part{{Backend: "a", Page: a}, {Backend: "b", Page: b}}}
	got, _ := m.AppendItems(nil)
	want := `[{"uri":"file:///x","name":"ax"},{"uri":"ui://a"},{"uri":"chatelaine+b:file:///x","name":"bx"}]`
	if string(got) != want {
		t.Errorf("AppendItems() = %s, want %s", got, want)
	}
	for _, order := range [][]Part{m.Parts, {m.Parts[1], m.Parts[0]}} {
		x := NewIndex()
		for _, part := range order {
			x.Add(Resources, part.Backend, part.Page)
		}
		if owner, _ := x.Owner("file:///x"); owner != "a" {
			t.Errorf("the owner of the common URI is %q, want a whatever the order", owner)
		}
	}
	if backend, uri, ok := UnwrapURI("chatelaine+b:file:///x"); backend != "b" || uri != "file:///x" || !ok {
		t.Errorf("UnwrapURI() = %q, %q, %v", backend, uri, ok)
	}
}

func TestNothingIsPromisedThatABackendDoesNot(t *testing.T) {
	t.Parallel()
	part := func(result string, stateless, old bool) Part {
		return Part{Backend: "a", Page: page(t, Tools, result), Stateless: stateless, Old: old}
	}
	long := `{"tools":[],"ttlMs":5000,"cacheScope":"public"}`
	private := `"ttlMs":0,"cacheScope":"private"`
	tests := []struct {
		name     string
		parts    []Part
		complete bool
		want     string
	}{
		{"both agree", []Part{part(long, true, false), part(`{"tools":[],"ttlMs":70,"cacheScope":"public"}`, true, false)}, true, `"ttlMs":70,"cacheScope":"public"`},
		{"one is private", []Part{part(long, true, false), part(`{"tools":[],"ttlMs":9000,"cacheScope":"private"}`, true, false)}, true, `"ttlMs":5000,"cacheScope":"private"`},
		{"one is a person's own", []Part{part(long, true, false), {Backend: "b", Page: page(t, Tools, long), Stateless: true, PerUser: true}}, true, `"ttlMs":5000,"cacheScope":"private"`},
		{"one does not say", []Part{part(long, true, false), part(`{"tools":[]}`, true, false)}, true, private},
		{"a negative number", []Part{part(`{"tools":[],"ttlMs":-1,"cacheScope":"public"}`, true, false)}, true, `"ttlMs":0,"cacheScope":"public"`},
		{"one is of the session era", []Part{part(long, true, false), part(long, false, false)}, true, private},
		{"one is old", []Part{part(long, true, true)}, true, private},
		{"one is missing", []Part{part(long, true, false)}, false, private},
		{"none", nil, true, private},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := Merged{Kind: Tools, Parts: tt.parts, Complete: tt.complete}
			if got := string(m.AppendCaching(nil)); got != tt.want {
				t.Errorf("AppendCaching() = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAnUnlistedURIGoesWhereItBelongsOrNowhere(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	x.Add(Resources, "a", page(t, Resources, `{"resources":[{"uri":"repo://one"},{"uri":"https://a/x"}]}`))
	x.Add(Resources, "b", page(t, Resources, `{"resources":[{"uri":"https://b/y"}]}`))
	x.Add(Templates, "b", page(t, Templates, `{"resourceTemplates":[{"uriTemplate":"file:///{dir}/b/{name}.txt"},{"uriTemplate":"{+anything}"}]}`))
	x.Add(Templates, "a", page(t, Templates, `{"resourceTemplates":[{"uriTemplate":"file:///a/{name}"}]}`))
	for uri, want := range map[string]string{
		"repo://two":              "a",
		"file:///a/x":             "a",
		"file:///home/b/note.txt": "b",
		"file:///a/b/c.txt":       "a", // both match: the first by name
		"https://c/z":             "",  // two backends have https
		"file:///home/b/note.md":  "",
		"gopher://x":              "",
		"no scheme":               "",
	} {
		if got, ok := x.Guess(uri); got != want || ok != (want != "") {
			t.Errorf("Guess(%q) = %q, %v; want %q", uri, got, ok, want)
		}
	}
	if !x.LoadedAt().IsZero() {
		t.Error("an index that was never loaded says that it was")
	}
	x.Loaded(time.Unix(5, 0))
	if x.LoadedAt().Unix() != 5 {
		t.Error("LoadedAt() differs from what Loaded was told")
	}
}

func TestAnIndexIsBounded(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	for i := range maxURIs + 10 {
		x.add(Resources, "a", fmt.Sprintf("x://%d", i))
	}
	if len(x.owners) != maxURIs {
		t.Errorf("the index has %d URIs, want %d", len(x.owners), maxURIs)
	}
}

func TestACursorOfOneListIsNoneOfAnother(t *testing.T) {
	t.Parallel()
	c := &Cursor{Method: Tools.Method, Next: []Position{{"a", "1"}, {"b", ""}}}
	raw, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := UnmarshalCursor(raw, Tools.Method)
	if err != nil {
		t.Fatal(err)
	}
	if cursor, ok := back.Of("a"); cursor != "1" || !ok {
		t.Errorf("Of(a) = %q, %v", cursor, ok)
	}
	if cursor, ok := back.Of("b"); cursor != "" || !ok {
		t.Errorf("Of(b) = %q, %v", cursor, ok)
	}
	if _, ok := back.Of("c"); ok {
		t.Error("a cursor for a backend that has none")
	}
	if _, err := UnmarshalCursor(raw, Prompts.Method); err == nil {
		t.Error("a cursor of tools was taken for one of prompts")
	}
}

func FuzzCursor(f *testing.F) {
	f.Add([]byte(`{"m":"tools/list","n":[{"b":"a","c":"1"}]}`))
	f.Add([]byte(`{"m":"tools/list","n":[{"b":"a","c":"1"},{"b":"a","c":"2"}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := UnmarshalCursor(raw, Tools.Method)
		if err != nil {
			return
		}
		again, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := UnmarshalCursor(again, Tools.Method); err != nil {
			t.Errorf("UnmarshalCursor(%q) is not accepted again: %v", again, err)
		}
	})
}

// What a backend sends as a list never makes the merged list something else
// than JSON, nor gives a tool a name without its backend in front.
func FuzzMerge(f *testing.F) {
	f.Add(`{"tools":[{"name":"x"}]}`)
	f.Add(`{"tools":[{"n\u0061me":"\u0078"},{"name":""},[],null,{"name":1}],"ttlMs":1e3}`)
	f.Fuzz(func(t *testing.T, result string) {
		m, err := jsonrpc.Parse([]byte(`{"jsonrpc":"2.0","id":1,"result":` + result + `}`))
		if err != nil {
			return
		}
		p, err := ParsePage(Tools, &m)
		if err != nil {
			return
		}
		merged := Merged{Kind: Tools, Names: names("a"), Parts: []Part{{Backend: "a", Page: p}}}
		items, _ := merged.AppendItems(nil)
		span, err := jsonrpc.Whole(items)
		if err != nil {
			t.Fatalf("the items of %q are %q: %v", result, items, err)
		}
		_ = jsonrpc.Elements(items, span, func(at jsonrpc.Span) error {
			name, _ := jsonrpc.Text(items, jsonrpc.Find(items, at, "name"))
			if len(name) < 3 || name[:2] != "a_" {
				t.Errorf("the items of %q have the name %q", result, name)
			}
			return nil
		})
	})
}

// manyTemplates is a page of n templates that nothing tells apart but their ends.
func manyTemplates(t *testing.T, n int, from string) *Page {
	t.Helper()
	var b strings.Builder
	b.WriteString(`{"resourceTemplates":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"uriTemplate":"%s%s%05d"}`, from, strings.Repeat("{}", 30)+strings.Repeat("a", 15), i)
	}
	b.WriteString(`]}`)
	return page(t, Templates, b.String())
}

// A list is answered by one goroutine under the index's lock.
func TestABackendCannotMakeAnIndexExpensive(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	for i := range 10 {
		x.Add(Templates, "evil", manyTemplates(t, 5000, fmt.Sprintf("x%d:", i)))
	}
	x.Add(Templates, "good", manyTemplates(t, 2, "good:"))
	if got := len(x.templates); got != maxTemplates+2 {
		t.Errorf("%d templates are kept", got)
	}
	if got := x.Size(); got > 2<<20 {
		t.Errorf("the index takes %d bytes", got)
	}
	if owner, _ := x.Guess("good:///aaaaaaaaaaaaaaa00001"); owner != "good" {
		t.Errorf("a template of another backend is found at %q", owner)
	}
	if _, ok := x.Guess("x0:" + strings.Repeat("a", maxURI)); ok {
		t.Error("a URI that is too long has an owner")
	}
	long := "long:" + strings.Repeat("x", maxURI)
	x.Add(Resources, "good", page(t, Resources, `{"resources":[{"uri":"`+long+`"}]}`))
	if _, ok := x.Owner(long); ok {
		t.Error("a URI that is too long is kept")
	}
}

func TestAnIndexIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	for i := range 1000 {
		x.Add(Resources, "evil", page(t, Resources, fmt.Sprintf(`{"resources":[{"uri":"x:%d%s"}]}`, i, strings.Repeat("x", maxURI-20))))
	}
	if got := x.Size(); got > 2<<20 || len(x.owners) < 100 {
		t.Errorf("%d URIs take %d bytes", len(x.owners), got)
	}
}

func TestATemplateGoesToTheBackendThatSortsFirst(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	for _, name := range []string{"b", "a", "c"} {
		x.Add(Templates, name, page(t, Templates, `{"resourceTemplates":[{"uriTemplate":"x://{id}"}]}`))
	}
	if owner, _ := x.Guess("x://1"); owner != "a" || len(x.templates) != 1 || x.counts["a"] != 1 || x.counts["b"] != 0 {
		t.Errorf("the owner is %q; %v", owner, x.counts)
	}
}

func TestAPageIsBoundedInItems(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]error{maxItems: nil, maxItems + 1: errTooMany} {
		m, err := jsonrpc.Parse([]byte(`{"jsonrpc":"2.0","id":1,"result":{"tools":[{}` + strings.Repeat(",{}", n-1) + `]}}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePage(Tools, &m); !errors.Is(err, want) {
			t.Errorf("%d items: %v", n, err)
		}
	}
}
