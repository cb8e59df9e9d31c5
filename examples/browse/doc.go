// Package browse is a headless person: it walks through login and consent pages
// as somebody at a browser would, until the browser is sent to where the walk was
// to end.
//
// A [Browser] keeps cookies, follows redirects one by one, fills in the form of
// each page (hidden fields as they are, user name and password by the field's
// name), presses a button, and stops in front of the redirect URI, which it does
// not fetch. What it sends beside that (Origin, Sec-Fetch-Site) is what browsers
// send, so that cross-site protection is in play. Every walk ends: hops, page
// sizes and time are bounded.
//
// What it leaves out: JavaScript, styles, and checks of what a page looks like.
// A page that needs a script to be used fails here.
package browse
