package config

import (
	"slices"
	"strings"
)

// JWTModifier, as a key of a path, stands for the payload of the JWT that was
// found so far. The name is ToolHive's.
const JWTModifier = "@upstreamjwt"

// jsonPath checks a path of object keys.
func (c *checker) jsonPath(d *document, path, value string) {
	if value == "" || c.report.reported(d, path) {
		return
	}
	if strings.Contains(value, "|") || slices.Contains(JSONKeys(value), JWTModifier) || !isJSONPath(value) {
		c.report.errorf(d, path, `must be object keys joined by dots, such as authed_user.id (\. is a dot inside a key); modifiers and wildcards are not supported`)
	}
}

// claimPath checks a path that may look into a JWT.
func (c *checker) claimPath(d *document, path, value string) {
	if value == "" || c.report.reported(d, path) {
		return
	}
	if !isJSONPath(value) {
		c.report.errorf(d, path, `must be object keys joined by dots, such as authed_user.id (\. is a dot inside a key), or look into a JWT, as access_token|@upstreamjwt|sub does; other modifiers and wildcards are not supported`)
	}
}

// isJSONPath reports whether a path is one that the broker reads as it is meant:
// keys, joined by dots or bars, in which only a dot is escaped. What has a
// meaning of its own in gjson is refused, since it would be taken for a key.
func isJSONPath(path string) bool {
	if len(path) > 256 || strings.Contains(strings.ReplaceAll(path, `\.`, ""), `\`) {
		return false
	}
	keys := JSONKeys(path)
	for i, key := range keys {
		switch {
		case key == JWTModifier:
			if i == 0 || i == len(keys)-1 { // of no token, or a whole payload for a name
				return false
			}
		case key == "", strings.ContainsAny(key, "@#*?!()[]{}\"' "):
			return false
		}
	}
	return true
}

// JSONKeys splits a path of a set, such as that of a provider's field, into its
// keys: at dots, and at bars beside a JWTModifier. "\." is a dot inside a key. The
// empty path has none.
func JSONKeys(path string) []string {
	if path == "" {
		return nil
	}
	var keys []string
	var key strings.Builder
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path):
			i++
			key.WriteByte(path[i])
		case c == '.' || c == '|':
			keys = append(keys, key.String())
			key.Reset()
		default:
			key.WriteByte(c)
		}
	}
	return append(keys, key.String())
}
