//go:build tools

// Package prometheus pins the Prometheus that scrapes the pods of the test cluster.
// `build` beside this file compiles it; nothing imports this package.
package prometheus

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)

// To take a new version: change go.mod's first requirement, delete the others and go.sum, and run
//
//	GOFLAGS=-mod=mod go list -deps -tags=tools,remove_all_sd,enable_kubernetes_sd .
//
// `go mod tidy` would also want the modules of the discoveries that are left out.
