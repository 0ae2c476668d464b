// Package paginate tests the SQL of the kit's paginate on real databases.
package paginate
