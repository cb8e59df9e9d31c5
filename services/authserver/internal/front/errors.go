package front

import (
	"net/http"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/authorize"
	"chatelaine.dev/services/authserver/internal/chain"
	"chatelaine.dev/services/authserver/internal/pages"
	"chatelaine.dev/services/authserver/internal/web"
)

// Reasons of this package's own errors.
const (
	reasonNoCookie = "cookie_missing"
	reasonForm     = "form_invalid"
)

const startAgain = "Go back to the application and connect again."

// fail writes the page of an error.
func (f *Front) fail(w http.ResponseWriter, r *http.Request, err error) {
	f.log(r.Context(), err)
	status, page := pageOf(err)
	page.Reference = web.Reference(r.Context())
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	if err := f.cfg.Pages.Error(w, status, page); err != nil {
		f.log(r.Context(), err)
	}
}

// pageOf says what an error means to the person who meets it.
func pageOf(err error) (status int, page pages.Error) {
	switch fault.ReasonOf(err) {
	case authorize.ReasonClient:
		return http.StatusBadRequest, pages.Error{
			Title: "Unknown application",
			What:  "The application that sent you here is not registered with this server. Registrations that are not used for long are removed.",
			Next:  "In the application, remove this connection and add it again, so that it registers anew.",
		}
	case authorize.ReasonRedirectURI:
		return http.StatusBadRequest, pages.Error{
			Title: "Wrong return address",
			What:  "The application asked to be answered at an address that it has not registered. For your safety nothing was sent there.",
			Next:  "If you know the application, remove this connection there and add it again. If you followed a link to get here, close this page.",
		}
	case authorize.ReasonRequest:
		return http.StatusBadRequest, pages.Error{
			Title: "Incomplete request",
			What:  "This page was opened without saying which application it is for.",
			Next:  startAgain,
		}
	case chain.ReasonExpired:
		return http.StatusBadRequest, pages.Error{
			Title: "This sign-in is over",
			What:  "It was finished or cancelled already, or it took longer than ten minutes.",
			Next:  "If the application is not connected, go back to it and connect again.",
		}
	case chain.ReasonState:
		return http.StatusBadRequest, pages.Error{
			Title: "Nothing to continue",
			What:  "The answer of the identity provider does not belong to a sign-in that is under way. It may have been used already, or be older than ten minutes.",
			Next:  "If the application is not connected, go back to it and connect again.",
		}
	case chain.ReasonBusy:
		return http.StatusServiceUnavailable, pages.Error{
			Title: "Still working on it",
			What:  "The identity provider has sent you back, and its answer is still being worked on.",
			Next:  "Wait a moment and reload this page.",
		}
	case chain.ReasonOtherBrowser:
		return http.StatusForbidden, pages.Error{
			Title: "Started in another browser",
			What:  "This sign-in was started in another browser, and can only be finished there. Nothing was changed.",
			Next:  "Go on in the browser where you started. If somebody sent you this link, close this page.",
		}
	case reasonNoCookie:
		return http.StatusForbidden, pages.Error{
			Title: "Your browser is not known here",
			What:  "The cookie that ties a sign-in to its browser is missing: the sign-in was started in another browser, or cookies are blocked.",
			Next:  "Go on in the browser where you started, or allow cookies for this site and connect again from the application.",
		}
	case reasonForm:
		return http.StatusForbidden, pages.Error{
			Title: "This form is not valid",
			What:  "The form was not made for this browser and this sign-in, or it is too old.",
			Next:  startAgain,
		}
	case web.ReasonTooLarge:
		return http.StatusRequestEntityTooLarge, pages.Error{
			Title: "Too much data", What: "The browser sent more than this page takes.", Next: startAgain,
		}
	}
	return pageOfKind(fault.KindOf(err))
}

func pageOfKind(kind fault.Kind) (status int, page pages.Error) {
	switch kind {
	case fault.Unavailable, fault.Timeout:
		return http.StatusServiceUnavailable, pages.Error{
			Title: "Not available at the moment",
			What:  "Something that the sign-in needs cannot be reached. Nothing is lost: a sign-in waits for ten minutes.",
			Next:  "Wait a moment and reload this page. If it stays so, tell whoever runs this server, with the reference below.",
		}
	case fault.Exhausted:
		return http.StatusTooManyRequests, pages.Error{
			Title: "Too many sign-ins", What: "Many sign-ins were started from your network in a short time.",
			Next: "Wait a minute and connect again from the application.",
		}
	case fault.Invalid:
		return http.StatusBadRequest, pages.Error{
			Title: "This request cannot be read", What: "The browser sent something that this page does not understand.", Next: startAgain,
		}
	}
	return http.StatusInternalServerError, pages.Error{
		Title: "Something went wrong",
		What:  "The server met a problem of its own.",
		Next:  "Connect again from the application. If it happens again, tell whoever runs this server, with the reference below.",
	}
}
