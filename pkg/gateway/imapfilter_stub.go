package gateway

import "bufio"

type imapFilter struct {
	in       *bufio.Reader
	ask      func() error
	literals bool
}

func (f *imapFilter) next() ([]byte, string, error) { panic("to come") }
