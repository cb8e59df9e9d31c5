package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
)

// digestVersion changes when the same configuration comes to mean something else.
const digestVersion = "chatelaine configuration 2\n"

// digest hashes the effective configuration. encoding/json sorts the keys, so
// equal deployments have equal digests.
//
// Fields that are zero are left out: gateways and brokers of two versions must
// agree on the digest while one replaces the other, and a field that only the
// newer one knows is zero for every set that the older one can read. A field that
// is added with another default breaks that; a test with frozen digests tells.
func digest(d *Deployment) string {
	canonical, err := json.Marshal(withoutZeros(reflect.ValueOf(d)))
	if err != nil {
		panic("config: a deployment is plain data: " + err.Error())
	}
	h := sha256.New()
	h.Write([]byte(digestVersion))
	h.Write(canonical)
	return hex.EncodeToString(h.Sum(nil))
}

// withoutZeros returns what encoding/json makes of v, its structs without the
// fields that are zero. What people wrote into a map stays.
func withoutZeros(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		return withoutZeros(v.Elem())
	case reflect.Struct:
		if m, ok := v.Interface().(json.Marshaler); ok {
			return m
		}
		fields := map[string]any{}
		for field, value := range v.Fields() {
			if field.IsExported() && !value.IsZero() && (value.Kind() != reflect.Slice || value.Len() > 0) {
				fields[field.Name] = withoutZeros(value)
			}
		}
		return fields
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = withoutZeros(v.Index(i))
		}
		return list
	default:
		return v.Interface()
	}
}
