package login_test

import "testing"

// The authorization server takes ten minutes for a chain, and as many for the code.
func TestACodeIsGoodForAllOfItsLifeAfterALongChain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.chain("octohub", "at", "rt")
	const ago = ` - interval '1170 seconds'`
	for _, sql := range []string{
		`UPDATE tokenbroker.sessions SET created_at = created_at` + ago + `, expires_at = expires_at` + ago,
		`UPDATE tokenbroker.staged_legs SET created_at = created_at` + ago,
	} {
		_, err := f.pool.Exec(t.Context(), sql)
		must(t, err)
	}
	must(t, f.activate(id))
	f.stored(id, "octohub")
}
