// Package pages renders what people see: the consent page, the confirmation of a
// change of account, and errors.
//
// The pages are plain HTML without scripts, images or requests for anything else.
// Their Content-Security-Policy allows one style sheet by its hash, forms to
// ourselves, and nothing more. Chromium applies form-action to the redirects that
// follow a form post, and a login goes through providers whose own redirects we do
// not know, so the policy names schemes (see [FormTargets]) and not hosts.
//
// Everything that comes from a client or a provider is text to html/template. Texts
// are for somebody who does not know what OAuth is.
package pages
