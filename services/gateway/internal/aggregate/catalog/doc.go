// Package catalog makes one list of the lists of many backends.
//
// A [Page] is one page of one backend's tools, prompts, resources or resource
// templates: the raw bytes, and where each item and its name stand. [Merge]
// joins pages into one result. Items stay the bytes that the backend sent, but
// for the names of tools and prompts, which get the backend's name in front
// ([Names]):
//
//	backend pages ─▶ ParsePage ─▶ Page ─▶ Merge ─▶ result, and a Cursor when there is more
//	                               └────▶ Index.Add (who owns which URI)
//
// URIs of resources stay as they are, because clients take them apart (ui://…)
// and meet them in the results of tools. An [Index] says who owns a URI. When
// two backends have the same one, it belongs to the backend whose name sorts
// first, and in the list the other's gets a wrapper, wrapURI, that names its
// backend.
//
// A [Cursor] holds the backends' own cursors. It is sealed by who hands it out.
//
// What it leaves out: fetching, and which pages to show when a backend is down.
package catalog
