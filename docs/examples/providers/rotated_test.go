package providers_test

import (
	"os"
	"testing"

	"github.com/keyturn/keyturn/internal/providertest"
	"github.com/keyturn/keyturn/verifier"
)

const podToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// TestKubernetesTokenIsRotated: the token in the pod's file is read at each fetch, because the kubelet
// renews it. While the file has a token that the API server does not take, tokens of a new key are not
// refused: the verifier cannot tell.
func TestKubernetesTokenIsRotated(t *testing.T) {
	before, after := providertest.KubernetesRotated()
	n := providertest.NewNetwork(t, before)
	s := newSetUp(t, n, before)
	v := newVerifier(t, s, before)
	verdict(t, v, before.Tokens[0])

	n.Publish(after)
	verdict(t, v, before.Tokens[0])
	verdict(t, v, refused(after.Tokens[0], verifier.ReasonUnavailable))
	if err := os.WriteFile(s.files[podToken], []byte(after.Files[podToken]), 0o600); err != nil {
		t.Fatal(err)
	}
	verdict(t, v, after.Tokens[0])
	verdict(t, v, refused(before.Tokens[0], verifier.ReasonUnknownKey))
}

func refused(token providertest.Token, reason verifier.Reason) providertest.Token {
	token.Reason = string(reason)
	return token
}
