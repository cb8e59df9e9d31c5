package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chatelaine.dev/internal/fault"
)

// SQLSTATE codes, PostgreSQL manual, appendix A.
const (
	codeUniqueViolation       = "23505"
	codeForeignKeyViolation   = "23503"
	codeSerialization         = "40001"
	codeDeadlock              = "40P01"
	codeUndefinedTable        = "42P01"
	codeInvalidSchema         = "3F000"
	codeReadOnly              = "25006" // a standby, or a server that protects a full disk
	codeLockNotAvailable      = "55P03"
	codeInsufficientPrivilege = "42501"
	codeNoDatabase            = "3D000"
	codeTooManyConnections    = "53300"
	classAuthorization        = "28" // no such role, wrong password, pg_hba.conf
	codeQueryCanceled         = "57014"
	classConnectionException  = "08"
	classResources            = "53" // disk full, out of memory, too many connections
	classOperatorAction       = "57P"
	classSystem               = "58" // I/O errors
)

// IsNoRows reports that a query that must find one row found none.
func IsNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// IsForeignKeyViolation reports that a row that is referred to does not exist,
// or is still referred to; by one of these constraints when any are named.
func IsForeignKeyViolation(err error, constraints ...string) bool {
	return violates(err, codeForeignKeyViolation, constraints)
}

// isSerialization reports that the transaction lost against another one and may
// be run again as it is.
func isSerialization(err error) bool {
	code := codeOf(err)
	return code == codeSerialization || code == codeDeadlock
}

// Fault returns err as the one error type, with the driver's as the cause: no
// rows is NotFound, a duplicate Conflict, a statement that took too long Timeout;
// a lost connection, a full disk, a refused login and whatever else only an operator
// can mend is Unavailable ("database_unavailable"), the rest Internal. An error that
// already is a *fault.Error stays; nil stays nil.
func Fault(err error) error {
	if err == nil {
		return nil
	}
	return From(err)
}

// From is Fault with the concrete type; From(nil) is nil.
func From(err error) *fault.Error {
	if err == nil {
		return nil
	}
	if f, ok := fault.As(err); ok {
		return f
	}
	code := codeOf(err)
	switch {
	case IsNoRows(err):
		return fault.Wrap(fault.NotFound, err, "")
	case code == codeUniqueViolation:
		return fault.Wrap(fault.Conflict, err, "it exists already").WithReason("already_exists")
	case isSerialization(err):
		return fault.Wrap(fault.Conflict, err, "somebody else changed it at the same time").WithReason("concurrent_change")
	case code == codeQueryCanceled, code == codeLockNotAvailable:
		if cerr := contextError(err); cerr != nil {
			return fault.From(cerr).WithCause(err)
		}
		return fault.Wrap(fault.Timeout, err, "the database took too long").WithReason("database_timeout")
	case errors.Is(err, context.Canceled), contextError(err) != nil && !connecting(err): // connecting has its own deadline
		return fault.From(contextError(err)).WithCause(err)
	case unavailable(err, code):
		return fault.Wrap(fault.Unavailable, oneLine(err), unavailableText(err, code)).
			WithReason("database_unavailable").WithRetryAfter(retryAfter)
	}
	return fault.Wrap(fault.Internal, discreet(err), "")
}

// retryAfter is when a caller may try again: a database that restarts, or hands over
// to its standby, takes seconds.
const retryAfter = 2 * time.Second

// unavailableText says what to do, without naming the server or the role: callers
// read it.
func unavailableText(err error, code string) string {
	switch {
	case strings.HasPrefix(code, classAuthorization):
		return "the database refuses the role or the password of this service: check the database URL, and that the server lets this role in"
	case code == codeNoDatabase:
		return "the server has no database of that name: check the database URL, or create the database"
	case code == codeTooManyConnections:
		return "the database takes no more connections: raise its limit (of the server, the database or the role), or lower --database-max-conns"
	case connecting(err) && code == codeInsufficientPrivilege:
		return "the role of this service may not connect to the database: grant it CONNECT"
	}
	return "the database is not available"
}

func contextError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	}
	return nil
}

func unavailable(err error, code string) bool {
	if connecting(err) {
		return true
	}
	if code != "" {
		return code == codeReadOnly || slices.ContainsFunc(
			[]string{classConnectionException, classResources, classOperatorAction, classSystem, classAuthorization},
			func(class string) bool { return strings.HasPrefix(code, class) })
	}
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// connecting reports that no connection could be made.
func connecting(err error) bool {
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok
}

// oneLine gives the failure to connect a text of one line that names the server; the
// driver's has a line for each address and for each try with and without TLS.
func oneLine(err error) error {
	failed, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return err
	}
	var tries []string
	for line := range strings.Lines(failed.Unwrap().Error()) {
		if line = strings.TrimSpace(line); !slices.Contains(tries, line) {
			tries = append(tries, line)
		}
	}
	cfg := failed.Config
	return &connectError{err: err, text: fmt.Sprintf("cannot connect to %s as user %q to database %q: %s",
		net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))), cfg.User, cfg.Database, strings.Join(tries, "; "))}
}

type connectError struct {
	err  error
	text string
}

func (e *connectError) Error() string { return e.text }

func (e *connectError) Unwrap() error { return e.err }

func violates(err error, code string, constraints []string) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == code && (len(constraints) == 0 || slices.Contains(constraints, pgErr.ConstraintName))
}

func isUndefined(err error) bool {
	code := codeOf(err)
	return code == codeUndefinedTable || code == codeInvalidSchema
}

// codeOf returns the SQLSTATE, or "".
func codeOf(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}
