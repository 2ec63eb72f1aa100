package main

import (
	"encoding/json"
	"fmt"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

// A checked is what serve --check --json prints.
type checked struct {
	OK       bool     `json:"ok"`
	Error    string   `json:"error,omitempty"`
	Tenants  int      `json:"tenants,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// check says whether a server would start with o, as far as that can be told without the network.
func (s *serveCommand) check(o *offer) error {
	if err := server.Check(o.server); err != nil {
		return s.unchecked(s.openError(o, err))
	}
	n := len(o.server.Tenants)
	if s.json {
		return s.printJSON(checked{OK: true, Tenants: n, Warnings: o.warnings})
	}
	for _, warning := range o.warnings {
		s.log.Warn(warning)
	}
	if s.seen.pipe != "" && o.file != nil {
		s.note("the configuration would not be read again: the file of %s is a pipe", s.seen.pipe)
	}
	return s.print(fmt.Sprintf("the configuration is good: %s\n", countTenants(n)))
}

// unchecked returns err, after printing it as JSON if that is asked for.
func (s *serveCommand) unchecked(err error) error {
	if s.checkOnly && s.json {
		if printErr := s.printJSON(checked{Error: err.Error()}); printErr != nil {
			return printErr
		}
	}
	return err
}

func (s *serveCommand) printJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.print(string(text) + "\n")
}

func countTenants(n int) string {
	if n == 1 {
		return "one tenant"
	}
	return fmt.Sprintf("%d tenants", n)
}
