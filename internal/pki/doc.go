// Package pki makes a private certificate authority and certificates with names,
// for tests and for the local stack.
//
// Keys are ECDSA on P-256; leaves are good for client and server authentication
// and carry their names as SANs only. [CA.Issue] returns a leaf, [Leaf.Write]
// puts NAME.crt, NAME.key and ca.crt into a folder, keys with mode 0600.
//
// What it leaves out: revocation, intermediates and renewal. A production
// deployment brings its own authority (cert-manager, a mesh, a corporate PKI).
package pki
