//go:build tools

// Package h2spec pins the judge of the terminating path of HTTP/2.
// `build` beside this file compiles it; nothing imports this package.
package h2spec

import _ "github.com/summerwind/h2spec/cmd/h2spec"
