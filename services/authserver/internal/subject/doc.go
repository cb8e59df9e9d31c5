// Package subject is SubjectTokenService: it mints the subject token of an RFC 8693
// exchange that has no upstream token to start from.
//
// It mints the actor token of an exchange, too (section 2.1): its subject is the client
// that the session was granted to, so that the token that comes of it can say who acts.
//
// Such a token says who the person, or the client, is, to one token service, for two minutes. Its
// typ is JWT and not at+jwt, its audience is the token service alone, and it has
// neither tsid nor scope, so that it opens nothing of ours. The session must be
// alive in our own grants: the broker is not believed about that.
package subject
