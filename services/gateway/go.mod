module chatelaine.dev/services/gateway

go 1.26.0

require chatelaine.dev/internal v0.0.0

require (
	github.com/google/go-cmp v0.7.0
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // indirect
	google.golang.org/grpc v1.85.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace (
	chatelaine.dev/internal => ../../internal
	chatelaine.dev/proto => ../../proto
)
