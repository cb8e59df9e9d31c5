module chatelaine.dev/e2e

go 1.26.0

require (
	chatelaine.dev/examples v0.0.0
	chatelaine.dev/internal v0.0.0
	chatelaine.dev/proto v0.0.0
)

replace (
	chatelaine.dev/examples => ../examples
	chatelaine.dev/internal => ../internal
	chatelaine.dev/proto => ../proto
)
