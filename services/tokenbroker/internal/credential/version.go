package credential

import (
	"strconv"
	"strings"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
)

// version identifies a credential that was handed out. Gateways take its text as
// opaque; every replica can read it, and what it claims is checked against the
// caller's own session before it has any effect.
type version struct {
	kind kind
	// connection and number are the connection and the version of its tokens;
	// empty and 0 where the credential came of none.
	connection string
	number     int64
	// generation of an exchanged token.
	generation exchange.Generation
	// tag of a static credential.
	tag string
}

type kind string

const (
	kindNone       kind = "n" // no credential
	kindStatic     kind = "s"
	kindConnection kind = "c"
	kindExchange   kind = "x"
)

// String returns the text: fields joined by dots, none of which has one.
func (v version) String() string {
	switch v.kind {
	case kindStatic:
		return string(v.kind) + "." + v.tag
	case kindConnection:
		return string(v.kind) + "." + v.connection + "." + strconv.FormatInt(v.number, 10)
	case kindExchange:
		return strings.Join([]string{
			string(v.kind), v.connection, strconv.FormatInt(v.number, 10),
			strconv.Itoa(v.generation.Rejections), v.generation.ID,
		}, ".")
	case kindNone:
	}
	return string(kindNone)
}

// parseVersion reads what String wrote. Errors are Invalid.
func parseVersion(text string) (version, error) {
	fields := strings.Split(text, ".")
	v := version{kind: kind(fields[0])}
	var err error
	switch {
	case v.kind == kindNone && len(fields) == 1:
	case v.kind == kindStatic && len(fields) == 2:
		v.tag = fields[1]
	case v.kind == kindConnection && len(fields) == 3:
		v.connection = fields[1]
		v.number, err = strconv.ParseInt(fields[2], 10, 64)
	case v.kind == kindExchange && len(fields) == 5:
		v.connection, v.generation.ID = fields[1], fields[4]
		if v.number, err = strconv.ParseInt(fields[2], 10, 64); err == nil {
			v.generation.Rejections, err = strconv.Atoi(fields[3])
		}
		if v.generation.ID == "" || v.generation.Rejections < 0 {
			return version{}, badVersion()
		}
	default:
		return version{}, badVersion()
	}
	if err != nil || v.number < 0 {
		return version{}, badVersion()
	}
	return v, nil
}

func badVersion() error {
	return fault.New(fault.Invalid, "").WithField("credential_version", "was not issued by this service")
}
