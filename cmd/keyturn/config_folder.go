package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

// A folderTenant is what a file of tenants_dir has last been good for.
type folderTenant struct {
	config *tenantConfig
	tenant server.Tenant
}

// readFolder reads the tenants of tenants_dir. One that cannot be used by itself is broken.
func (c *configFile) readFolder(a *app) error {
	names, err := tenantFiles(c.TenantsDir)
	a.seen.noteFolder(c.TenantsDir, names, err)
	if err != nil {
		return usagef("the file of --config: tenants_dir: cannot read that folder: %v", causeOf(err))
	}
	for _, name := range names {
		path := filepath.Join(c.TenantsDir, name)
		t, err := a.readTenant(path)
		if err == nil {
			err = t.check(false)
		}
		if err != nil {
			t = &tenantConfig{broken: err}
		}
		t.file = path
		c.Tenants = append(c.Tenants, *t)
	}
	if len(c.Tenants) == 0 {
		return usagef("the file of --config has no tenants, and tenants_dir has no file of one; see keyturn serve --help for an example")
	}
	return nil
}

// readTenant reads a file that holds one tenant.
func (a *app) readTenant(path string) (*tenantConfig, error) {
	f, err := a.readFile("tenants_dir", path, "a tenant, as YAML", holdsRules)
	if err != nil {
		return nil, err
	}
	t := &tenantConfig{file: path}
	d := yaml.NewDecoder(bytes.NewReader(f.text))
	d.KnownFields(true)
	switch err := d.Decode(t); {
	case errors.Is(err, io.EOF):
		return nil, fileErrorf(path, "it is empty: want one tenant")
	case err != nil:
		return nil, fileErrorf(path, "%s", yamlText(err))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fileErrorf(path, "it has more than one document: want one tenant a file")
	}
	var root yaml.Node
	if err := yaml.Unmarshal(f.text, &root); err != nil {
		return nil, fileErrorf(path, "%s", yamlText(err))
	}
	if line := emptyElement(&root); line > 0 {
		return nil, fileErrorf(path, "line %d: an element of a list is empty", line)
	}
	t.line = root.Content[0].Line
	t.resolve(filepath.Dir(path))
	return t, nil
}

// fileErrorf returns an error about a file of tenants_dir.
func fileErrorf(path, format string, args ...any) error {
	return usagef("the file %s of tenants_dir: %s", quoteShort(filepath.Base(path)), fmt.Sprintf(format, args...))
}

// at is place with a preposition.
func (t *tenantConfig) at() string {
	if t.file != "" {
		return t.place()
	}
	return "on " + t.place()
}

// place says where a tenant is.
func (t *tenantConfig) place() string {
	if t.file != "" {
		return "in the file " + quoteShort(filepath.Base(t.file)) + " of tenants_dir"
	}
	return fmt.Sprintf("line %d", t.line)
}

// resolve makes relative paths of files relative to folder, in which the configuration is.
func (t *tenantConfig) resolve(folder string) {
	resolveAll(folder, &t.SecretFile, &t.JWKSFile, &t.CAFile, &t.BearerTokenFile)
}

func resolveAll(folder string, paths ...*string) {
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(folder, *p)
		}
	}
}

// fileTenants returns the tenants of the file, and of tenants_dir, as the server takes them. One of
// tenants_dir that cannot be used is as it was when it could be used last, and the others are not held
// up. At the start no earlier tenant exists, and a server that left a tenant out would call its good
// tokens bad: so that is an error.
func (s *serveCommand) fileTenants(file *configFile) (all []server.Tenant, err error) {
	f := &folderReading{serveCommand: s, file: file, owners: make(secretOwners)}
	s.next, s.kept = make(map[string]*folderTenant), make(map[string]error)
	for i := range file.Tenants {
		if t := &file.Tenants[i]; t.file == "" {
			one, err := s.sumTenant(t, f.owners)
			if err != nil {
				return nil, err
			}
			f.use(t, one)
		}
	}
	for _, broken := range []bool{true, false} { // what the broken ones have, no other takes
		for i := range file.Tenants {
			if t := &file.Tenants[i]; t.file != "" && (t.broken != nil) == broken {
				if err := f.add(t); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := f.emptied(); err != nil {
		return nil, err
	}
	file.Tenants = f.configs
	return f.tenants, nil
}

// A folderReading collects the tenants of a file and of its tenants_dir.
type folderReading struct {
	*serveCommand
	file    *configFile
	owners  secretOwners
	configs []tenantConfig
	tenants []server.Tenant
}

// emptied returns an error if the folder had tenants and has no file of one any more: that is what a
// volume looks like that is not mounted.
func (f *folderReading) emptied() error {
	had := 0
	for path := range f.good {
		if filepath.Dir(path) == filepath.Clean(f.file.TenantsDir) {
			had++
		}
	}
	isOf := func(t tenantConfig) bool { return t.file != "" }
	if had == 0 || f.file.TenantsDir == "" || slices.ContainsFunc(f.file.Tenants, isOf) {
		return nil
	}
	return usagef("tenants_dir has no file of a tenant, and had %d: is it not mounted? They stay; to remove the last one, take tenants_dir out of the file", had)
}

func (f *folderReading) use(t *tenantConfig, one server.Tenant) {
	f.configs, f.tenants = append(f.configs, *t), append(f.tenants, one)
	if t.file != "" {
		f.next[t.file] = &folderTenant{t, one}
	}
}

// add adds a tenant of tenants_dir, or what it was when it was good.
func (f *folderReading) add(t *tenantConfig) error {
	err := t.broken
	var one server.Tenant
	if err == nil {
		one, err = f.sumTenant(t, f.owners)
	}
	if err == nil {
		err = f.file.claim(t)
	}
	if err == nil {
		f.use(t, one)
		return nil
	}
	if !f.reloading {
		return err
	}
	for _, sum := range t.secrets {
		if f.owners[sum] == t {
			delete(f.owners, sum)
		}
	}
	f.kept[filepath.Base(t.file)] = err
	good := f.good[t.file]
	if good == nil {
		return nil
	}
	for _, sum := range good.config.secrets {
		if err := f.owners.check(good.config, sum); err != nil {
			return err
		}
	}
	if err := f.file.claim(good.config); err != nil {
		return err
	}
	f.use(good.config, good.tenant)
	return nil
}

// sumTenant is fileTenant with the sum of the tenant's file and of the files that it names.
func (s *serveCommand) sumTenant(t *tenantConfig, owners secretOwners) (server.Tenant, error) {
	text, err := json.Marshal(t, json.Deterministic(true)) // YAML takes ten times as long
	if err != nil {
		return server.Tenant{}, t.errorf("%v", err)
	}
	s.seen.beginTenant(text)
	one, err := s.fileTenant(t, owners)
	one.Sum = s.seen.endTenant()
	return one, err
}
