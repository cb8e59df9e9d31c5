package clients

import (
	"log/slog"
	"net/http"
	"net/netip"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/authserver/internal/metrics"
	"chatelaine.dev/services/authserver/internal/web"
)

// Handler is POST /oauth/register.
type Handler struct {
	Registrar *Registrar
	// Limiter bounds registrations by address.
	Limiter *web.Limiter
	// TrustedProxies may say who calls.
	TrustedProxies []netip.Prefix
	// Metrics may be nil.
	Metrics *metrics.Recorder
	Logger  *slog.Logger
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if ok, wait := h.Limiter.Allow(web.ClientAddress(r, h.TrustedProxies)); !ok {
		h.refuse(w, r, fault.New(fault.Exhausted, "too many registrations from this address; try again later").WithRetryAfter(wait))
		return
	}
	body, err := web.ReadBody(w, r, MaxBodyBytes)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	asked, err := Parse(body)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	info, err := h.Registrar.Register(ctx, asked)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	h.Metrics.Registration(ctx, metrics.Registered)
	telemetry.Audit(ctx, h.Logger, "client.registered", "success",
		slog.String("client_id", info.ClientID), slog.String("auth_method", info.TokenEndpointAuthMethod))
	web.JSON(w, http.StatusCreated, info)
}

// refuse answers as RFC 7591, section 3.2.2, has it, and logs the cause.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.From(err)
	status, code, description := http.StatusBadRequest, f.Reason, f.Error()
	level := slog.LevelInfo
	switch {
	case f.Reason == ReasonMetadata, f.Reason == ReasonRedirectURI:
	case f.Reason == web.ReasonTooLarge:
		status, code = http.StatusRequestEntityTooLarge, ReasonMetadata
	case f.Kind == fault.Exhausted:
		status, code = http.StatusTooManyRequests, "temporarily_unavailable"
		w.Header().Set("Retry-After", web.RetryAfter(f.RetryAfter))
	case f.Kind == fault.Invalid:
		code = ReasonMetadata
	case f.Kind == fault.Unavailable, f.Kind == fault.Timeout:
		status, code, description, level = http.StatusServiceUnavailable, "temporarily_unavailable", "try again in a moment", slog.LevelWarn
		w.Header().Set("Retry-After", "2")
	default:
		status, code, description, level = http.StatusInternalServerError, "server_error", "the server met a problem of its own", slog.LevelError
	}
	outcome := code
	if f.Kind == fault.Exhausted {
		outcome = metrics.Limited
	}
	h.Metrics.Registration(r.Context(), outcome)
	h.Logger.LogAttrs(r.Context(), level, "registration refused", fault.Attr(err))
	web.JSON(w, status, map[string]string{"error": code, "error_description": description})
}
