// Package secret keeps secrets out of what is printed, and finds them by name.
//
// [String] and [Bytes] hold a value that only Reveal gives back; under fmt (each
// verb, also inside other structs), log/slog, encoding/json and every encoder
// that honours encoding.TextMarshaler they read "[redacted]".
//
// A [Ref] (written NAME/KEY) is how configuration and flags name a secret, and
// a [Resolver] reads it: first the file $CHATELAINE_SECRETS_DIR/NAME/KEY, which
// is how Kubernetes mounts a Secret, then the environment variable NAME_KEY in
// upper case. No error of this package shows a value.
//
// What it leaves out: cryptography (see keyring), watching files for changes,
// and wiping memory, which Go's garbage collector does not allow to promise.
package secret
