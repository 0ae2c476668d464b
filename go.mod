module example.com/plainware

go 1.26.0
