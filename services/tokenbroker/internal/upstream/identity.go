package upstream

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

const (
	// maxSubject is in bytes; OIDC Core, section 2, has 255 ASCII characters.
	maxSubject = 512
	// maxDisplay is in characters.
	maxDisplay = 200
)

// subjectText reports whether s can identify a person. The replacement
// character is refused: different broken texts decode to it and would be equal.
func subjectText(s string) bool {
	return s != "" && len(s) <= maxSubject && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) })
}

// display makes a name or an address fit to be shown: no control or formatting
// characters (which could turn text around), one line, bounded.
func display(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) > maxDisplay {
		s = string([]rune(s)[:maxDisplay])
	}
	return s
}

// firstID returns the first of the fields that holds an id, and that field's name.
func firstID(doc endpoint.Document, fields []string) (id, field string) {
	for _, f := range fields {
		if s, ok := doc.ID(endpoint.Path{f}); ok {
			return s, f
		}
		if s, ok := doc.ID(endpoint.ParsePath(f)); ok {
			return s, f
		}
	}
	return "", ""
}

// identityFields picks a person out of a userinfo answer.
func identityFields(doc endpoint.Document, subject, name, email []string) Identity {
	var id Identity
	id.Subject, id.SubjectField = firstID(doc, subject)
	id.Name, _ = firstID(doc, name)
	id.Email, _ = firstID(doc, email)
	id.Name, id.Email = display(id.Name), display(id.Email)
	return id
}
