package endpoint

// registered are the error codes that may be repeated to callers and logs: the
// ones of RFC 6749, 6750, 7009, 8628, 8693, 8707, 9396, 9449, 9470 and OpenID
// Connect Core that a back channel can meet. A code that is not here could be
// any text, so it is not kept.
//
//nolint:gochecknoglobals // a constant table
var registered = map[string]bool{
	"access_denied": true, "account_selection_required": true, "authorization_pending": true,
	"consent_required": true, "expired_token": true, "insufficient_scope": true,
	"insufficient_user_authentication": true, "interaction_required": true,
	"invalid_authorization_details": true, "invalid_client": true, "invalid_dpop_proof": true,
	"invalid_grant": true, "invalid_request": true, "invalid_scope": true, "invalid_target": true,
	"invalid_token": true, "login_required": true, "server_error": true, "slow_down": true,
	"temporarily_unavailable": true, "unauthorized_client": true, "unsupported_grant_type": true,
	"unsupported_response_type": true, "unsupported_token_type": true, "use_dpop_nonce": true,
}

// vendor maps codes of well-known services that predate or ignore the registry.
//
//nolint:gochecknoglobals // a constant table
var vendor = map[string]string{
	// GitHub, https://docs.github.com/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors
	"bad_verification_code":        "invalid_grant",
	"bad_refresh_token":            "invalid_grant",
	"incorrect_client_credentials": "invalid_client",
	"redirect_uri_mismatch":        "invalid_request",
	"unverified_user_email":        "access_denied",
	// Slack, https://docs.slack.dev/reference/methods/oauth.v2.access
	"invalid_code":          "invalid_grant",
	"code_already_used":     "invalid_grant",
	"invalid_refresh_token": "invalid_grant",
	"token_revoked":         "invalid_grant",
	"token_expired":         "invalid_grant",
	"bad_client_secret":     "invalid_client",
	"invalid_client_id":     "invalid_client",
	"bad_redirect_uri":      "invalid_request",
	"ratelimited":           "temporarily_unavailable",
	"internal_error":        "server_error",
	"fatal_error":           "server_error",
	"service_unavailable":   "temporarily_unavailable",
}

// oauthError tells what an error document says. present is false when there is
// none; code is empty when it is not a registered one; transient means that the
// server speaks of itself and not of what it was sent.
func oauthError(doc Document) (code string, present, transient bool) {
	text, ok := doc.String(Path{"error"})
	if !ok {
		// Slack answers {"ok": false} with HTTP 200.
		v, has := doc.Lookup(Path{"ok"})
		verdict, isBool := v.(bool)
		return "", has && isBool && !verdict, false
	}
	if own, ok := vendor[text]; ok {
		text = own
	}
	if !registered[text] {
		return "", true, false
	}
	switch text {
	case "server_error", "temporarily_unavailable", "slow_down":
		return text, true, true
	}
	return text, true, false
}
