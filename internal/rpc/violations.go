package rpc

import (
	"errors"

	"buf.build/go/protovalidate"

	"chatelaine.dev/internal/fault"
)

// asViolations returns the fields that a protovalidate error names. Rules are
// ours and public; the offending values are not repeated.
func asViolations(err error) ([]fault.Field, bool) {
	ve, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok {
		return nil, false
	}
	fields := make([]fault.Field, 0, len(ve.Violations))
	for _, v := range ve.Violations {
		problem := v.Proto.GetMessage()
		if problem == "" {
			problem = "violates " + v.Proto.GetRuleId()
		}
		fields = append(fields, fault.Field{Path: protovalidate.FieldPathString(v.Proto.GetField()), Problem: problem})
	}
	return fields, true
}
