// What programs that are modules of the External Server are made with.
module github.com/fleet-protocol/external-server/sdk

go 1.26.0

require google.golang.org/protobuf v1.36.12
