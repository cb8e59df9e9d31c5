// Package page draws the few HTML pages of the demo's providers and ties their
// forms to the browser that they were shown to.
//
// [Renderer] shows one page with text, an optional form and its buttons; no
// JavaScript, one inline style that the Content-Security-Policy names by hash.
// [Browser] reads or sets one random cookie and derives from it the token that a
// form carries: a form of another browser, or of another site, has no valid one.
//
// What it leaves out: translations, and every kind of page that these two
// providers do not have.
package page
