module chatelaine.dev/services/gateway

go 1.26.0

require (
	chatelaine.dev/internal v0.0.0
	chatelaine.dev/proto v0.0.0
)

replace (
	chatelaine.dev/internal => ../../internal
	chatelaine.dev/proto => ../../proto
)
