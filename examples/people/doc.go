// Package people holds the people whom the demo's servers know: how they sign
// in, which repositories they own at the code host, and what they earn.
//
// The same set is read by corp (sign-in, profile), octohub (sign-in, profile,
// repositories) and payroll (payslips), each by its own identifier: nobody has
// the same user id at two places. [Default] has alice and bob; [Load] reads a
// YAML or JSON file of the same form, so that a test can rename them and a
// reader can add somebody.
//
// What it leaves out: password hashing. The file is example input with
// passwords that everybody knows; nothing here belongs near real accounts.
package people
