// Package front is where browsers meet the authorization server.
//
//	GET  /oauth/authorize            package authorize checks, package chain begins: consent page
//	POST /oauth/consent              approve or deny
//	GET  /oauth/callback/{provider}  a provider sends the browser back
//	GET  /oauth/confirm              a change of account, POST answers it
//
// One random cookie binds everything to the browser: a request, its states and
// its forms are good only with it. On https it is a __Host- cookie; on plain http,
// which is for loopback, its name has the port, because ports share cookies. Form
// tokens are sealed for one request, one browser and one question.
//
// Answers are 303 redirects or pages. What cannot be told to the client safely, or
// has no client, is a page that says what to do next and carries a reference.
// None of these routes answers CORS: they are for people, not for scripts.
package front
