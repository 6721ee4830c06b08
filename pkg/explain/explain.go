// Package explain says in plain words what an error of Entra, Graph, Exchange or
// o365pw itself means, whose move it is, and what mends it.
package explain

// Kind says whose error an [Explanation] is of.
type Kind string

// The kinds of explanations.
const (
	Entra Kind = "entra" // AADSTS numbers
)

// Explanation is help for one error, in texts that fit one line.
type Explanation struct {
	Code  string // "AADSTS7000215"
	Kind  Kind
	Cause string // what is wrong
	Fix   string // what to run or to set; CLIENT_ID, TENANT, ADDRESS and NAME are to be filled in
	Mover string // whose move it is: "you", "administrator", "Microsoft" or "o365pw" (a fault of this program)
}

const (
	you           = "you"
	administrator = "administrator"
	microsoft     = "Microsoft"
	ourselves     = "o365pw"
)
