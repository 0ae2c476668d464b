module example.com/plainware/examples

go 1.26.0

require example.com/plainware v0.0.0

replace example.com/plainware => ..
