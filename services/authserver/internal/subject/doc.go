// Package subject is SubjectTokenService: it mints the subject token of an RFC 8693
// exchange that has no upstream token to start from.
//
// Such a token says who the person is, to one token service, for two minutes. Its
// typ is JWT and not at+jwt, its audience is the token service alone, and it has
// neither tsid nor scope, so that it opens nothing of ours. The session must be
// alive in our own grants: the broker is not believed about that.
package subject
