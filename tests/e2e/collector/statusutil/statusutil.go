// Package statusutil has the two functions that the collector's receivers and exporters want of their internal module,
// which the module proxy does not serve.  Only errors pass through here.
package statusutil

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var codesByStatus = map[int]codes.Code{
	400: codes.InvalidArgument,
	401: codes.Unauthenticated,
	403: codes.PermissionDenied,
	404: codes.Unimplemented,
	429: codes.ResourceExhausted,
	502: codes.Unavailable,
	503: codes.Unavailable,
	504: codes.Unavailable,
}

// NewStatusFromMsgAndHTTPCode is Unknown for every HTTP status that OTLP does not map.
func NewStatusFromMsgAndHTTPCode(message string, httpStatus int) *status.Status {
	code, known := codesByStatus[httpStatus]
	if !known {
		code = codes.Unknown
	}
	return status.New(code, message)
}

// GetRetryInfo is nil when the status asks for no wait.
func GetRetryInfo(s *status.Status) *errdetails.RetryInfo {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info
		}
	}
	return nil
}
