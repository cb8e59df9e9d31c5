// Package compose tests docker-compose.yml.
//
// Its tests read the file and check what must hold for every container; they need
// no engine and run with all the others. With the build tag "compose" (`make
// compose-test`) there are those that need one: they read the images, start the
// containers by `up` alone, run the end-to-end tests against them, and do the same
// with two replicas of each service, of which one dies while they run, and once
// more under load. Each starts from empty volumes, in a project of its own, and
// removes what it made.
//
// What it leaves out: the profile observe, whose images come from public
// registries; the file's form alone is checked.
package compose
