package vault

import "time"

// lease is how long a replica may be at a renewal before another one takes over.
const lease = 8 * time.Second

// leaseArgs are the brokers' flags that say so: shorter than the defaults, so that
// rounds in which somebody waits for one are short.
var leaseArgs = []string{"--upstream-timeout", "5s", "--refresh-lease", lease.String()}
