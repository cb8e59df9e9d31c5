package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// digestVersion changes when the same configuration comes to mean something else.
const digestVersion = "chatelaine configuration 1\n"

// digest hashes the effective configuration. encoding/json writes struct fields
// in their order and map keys sorted, so equal deployments have equal digests.
func digest(d *Deployment) string {
	canonical, err := json.Marshal(d)
	if err != nil {
		panic("config: a deployment is plain data: " + err.Error())
	}
	h := sha256.New()
	h.Write([]byte(digestVersion))
	h.Write(canonical)
	return hex.EncodeToString(h.Sum(nil))
}
