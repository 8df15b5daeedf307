module example-go

go 1.26.0

require github.com/fleet-protocol/external-server/sdk v0.0.0

require google.golang.org/protobuf v1.36.12 // indirect

// The SDK of the same tree. A module elsewhere names the folder of the tree.
replace github.com/fleet-protocol/external-server/sdk => ../../sdk
