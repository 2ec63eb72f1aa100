package jwks_test

import (
	"errors"
	"testing"

	"github.com/keyturn/keyturn/keystore/jwks"
)

// A program that has other names for our settings makes its own sentence of the parts.
func TestErrorParts(t *testing.T) {
	client := jwks.New(jwks.Config{})
	defer client.Close(t.Context())
	open := func(url string, cfg jwks.SourceConfig) error {
		_, err := client.Open("acme", url, cfg)
		return err
	}
	_, _, parse := jwks.Parse("acme", []byte(`{}`))
	_, tenant := client.Open("", "https://issuer.example", jwks.SourceConfig{})
	tests := []struct {
		name string
		err  error
		want jwks.Error
		text string
	}{
		{
			name: "http",
			err:  open("http://issuer.example", jwks.SourceConfig{}),
			want: jwks.Error{
				Step: jwks.StepURL, Detail: "scheme http: want https",
				Setting: jwks.SettingAllowLoopback, Hint: "allows http on this machine, for tests",
			},
			text: "jwks: url: scheme http: want https (AllowLoopback allows http on this machine, for tests)",
		},
		{
			name: "localhost",
			err:  open("https://localhost", jwks.SourceConfig{}),
			want: jwks.Error{
				Step: jwks.StepAddress, Detail: "localhost is this machine: refused",
				Setting: jwks.SettingAllowLoopback, Hint: "allows it, for tests",
			},
			text: "jwks: address: localhost is this machine: refused (AllowLoopback allows it, for tests)",
		},
		{
			name: "a private address",
			err:  open("https://10.0.0.1", jwks.SourceConfig{}),
			want: jwks.Error{
				Step: jwks.StepAddress, Detail: "address 10.0.0.1 is not a public one: refused",
				Setting: jwks.SettingAllowCIDR, Hint: "allows it by name",
			},
			text: "jwks: address: address 10.0.0.1 is not a public one: refused (AllowCIDR allows it by name)",
		},
		{
			name: "no hint",
			err:  open("ftp://issuer.example", jwks.SourceConfig{}),
			want: jwks.Error{Step: jwks.StepURL, Detail: `scheme "ftp": want https`},
			text: `jwks: url: scheme "ftp": want https`,
		},
		{
			name: "an argument",
			err:  tenant,
			want: jwks.Error{Detail: "the tenant is empty"},
			text: "jwks: the tenant is empty",
		},
		{
			name: "a document",
			err:  parse,
			want: jwks.Error{Detail: `not a JWK Set: it has no "keys" member`},
			text: `jwks: not a JWK Set: it has no "keys" member`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := new(jwks.Error)
			if !errors.As(tt.err, &got) || *got != tt.want {
				t.Errorf("the parts are %+v, want %+v", *got, tt.want)
			}
			if tt.err.Error() != tt.text {
				t.Errorf("the text is %q, want %q", tt.err, tt.text)
			}
		})
	}
}
