package refresh

// RenewAhead is one round of Run.
var RenewAhead = (*Refresher).renewAhead
