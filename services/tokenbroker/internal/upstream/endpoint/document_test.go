package endpoint

import (
	"strings"
	"testing"
)

func TestParseRefusesWhatTwoReadersCouldReadDifferently(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"key twice":        `{"a":1,"a":2}`,
		"key twice, deep":  `{"x":[{"a":1,"a":1}]}`,
		"escaped twice":    `{"a":1,"\u0061":2}`,
		"two values":       `{} {}`,
		"trailing text":    `{}x`,
		"list":             `[]`,
		"text":             `"a"`,
		"nothing":          ``,
		"unfinished":       `{"a":`,
		"no comma":         `{"a":1 "b":2}`,
		"number as key":    `{1:2}`,
		"comment":          `{/**/}`,
		"not UTF-8":        "{\"a\":\"\xc3\x28\"}",
		"nested too deep":  strings.Repeat(`{"a":[`, 20) + strings.Repeat(`]}`, 20),
		"leading zeros":    `{"a":007}`,
		"NaN":              `{"a":NaN}`,
		"single quotes":    `{'a':1}`,
		"byte order mark":  "\ufeff{}",
		"unfinished array": `{"a":[1,2}`,
	} {
		if doc, err := ParseJSON([]byte(body)); err == nil {
			t.Errorf("%s: accepted as %v", name, doc)
		} else if strings.Contains(err.Error(), body) && body != "" {
			t.Errorf("%s: the error quotes the input: %v", name, err)
		}
	}
	for name, body := range map[string]string{
		"key twice": "a=1&a=2", "bad escape": "a=%zz", "semicolon": "a=1;b=2", "nothing": "",
		"too many": strings.Repeat("a=1&", 300), "not UTF-8": "a=%ff",
	} {
		if doc, err := ParseForm([]byte(body)); err == nil {
			t.Errorf("form, %s: accepted as %v", name, doc)
		}
	}
}

func TestParseTellsJSONFromForms(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		contentType, body string
		ok                bool
	}{
		{"application/json", ` {"a":"1"}`, true},
		{"text/html", `{"a":"1"}`, true}, // some servers mislabel JSON
		{"application/x-www-form-urlencoded; charset=utf-8", "a=1", true},
		{"text/plain", "a=1", true},
		{"text/html", "a=1", false},
		{"", "a=1", false},
		{"application/json", "a=1", false},
	} {
		doc, err := Parse(tt.contentType, []byte(tt.body))
		if (err == nil) != tt.ok {
			t.Errorf("%s %s: %v", tt.contentType, tt.body, err)
		}
		if a, _ := doc.String(Path{"a"}); tt.ok && a != "1" {
			t.Errorf("%s %s: %v", tt.contentType, tt.body, doc)
		}
	}
}

func TestPathsFindValues(t *testing.T) {
	t.Parallel()
	doc, err := ParseJSON([]byte(`{
		"id": 18446744073709551617, "neg": -3, "name": "n", "null": null, "no": false,
		"user": {"id": "u", "e.mail": "x", "list": [{"id": "first"}, "second"]},
		"jwt": "e30.eyJzdWIiOiJzIn0.c2ln", "half": "e30.eyJzdWIiOiJzIn0", "bad": "e30.!.c2ln"}`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"id": "18446744073709551617", "neg": "-3", "name": "n", "user.id": "u", `user.e\.mail`: "x",
		"user.list.0.id": "first", "user.list.1": "second",
		"jwt|@upstreamjwt|sub": "s", "jwt.@upstreamjwt.sub": "s",
		// nothing there
		"": "", "null": "", "no": "", "user": "", "user.list": "", "user.list.2": "", "user.list.-1": "", "user.list.x": "",
		"name.x": "", "half|@upstreamjwt|sub": "", "bad|@upstreamjwt|sub": "", "jwt|@upstreamjwt": "", "ID": "", ".": "", "user.": "",
	} {
		got, ok := doc.ID(ParsePath(path))
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", path, got, ok, want)
		}
	}
}

// Whatever a server sends, parsing ends, and finds each key once.
func FuzzParse(f *testing.F) {
	f.Add("application/json", []byte(`{"access_token":"a","expires_in":3600}`), "access_token")
	f.Add("application/x-www-form-urlencoded", []byte("access_token=a&scope=b%2Cc"), "scope")
	f.Add("application/json", []byte(`{"a":{"b":[1,{"c":"e30.e30."}]}}`), "a.b.1.c|@upstreamjwt|sub")
	f.Add("text/html", []byte("<html>"), `a\.b`)
	f.Fuzz(func(t *testing.T, contentType string, body []byte, path string) {
		doc, err := Parse(contentType, body)
		if err != nil {
			if doc != nil {
				t.Error("a document and an error")
			}
			return
		}
		p := ParsePath(path)
		doc.Lookup(p)
		doc.Strings(p)
		if s, ok := doc.ID(p); ok && s == "" {
			t.Error("found an empty id")
		}
		oauthError(doc)
	})
}

func TestChooseAuthMethod(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		supported []string
		secret    bool
		want      string
		ok        bool
	}{
		{nil, true, "client_secret_basic", true},
		{[]string{"client_secret_post", "client_secret_basic"}, true, "client_secret_basic", true},
		{[]string{"client_secret_post"}, true, "client_secret_post", true},
		{[]string{"private_key_jwt"}, true, "", false},
		{[]string{"client_secret_basic"}, false, "none", true},
	} {
		if got, ok := ChooseAuthMethod(tt.supported, tt.secret); got != tt.want || ok != tt.ok {
			t.Errorf("%v, secret %v: %q, %v", tt.supported, tt.secret, got, ok)
		}
	}
}
