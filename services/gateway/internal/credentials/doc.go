// Package credentials keeps what backends must be sent for each caller, and
// forgets it when the broker says so.
//
//	Get ─▶ cache, by session and backend ─▶ (miss) one GetCredential for all who wait ─▶ cache
//	                 ▲ drops entries
//	Run ─▶ WatchSessions: sessions that ended or changed, connections that changed, heartbeats
//
// A warm Get makes no call, takes no lock that all requests share, and allocates
// nothing. What keeps the cache honest is the watch: while it is alive, an entry
// is good until it expires or an event voids it. Once the watch has been silent
// for MaxUnwatched, every entry must be confirmed by GetCredential, at most a
// second ago; a broker that cannot be reached then means that there is no
// credential. An answer that had not seen an event about its session or
// connection, which the watch has delivered, is thrown away and asked for anew.
//
// A session that ended is refused for as long as its access tokens could live,
// and the streams of its requests are closed (see Manager.Attach). So are all
// streams when the watch is lost: nobody would tell that they must end.
//
// The gateway is not believed by the broker, and so it is not asked to decide:
// each call shows the caller's own access token.
//
// What it leaves out: what the headers mean, and persistence. A gateway that
// starts has an empty cache.
package credentials
