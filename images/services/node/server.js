const http = require('http');
const os = require('os');

const server = http.createServer((request, response) => {
  response.end(`node answers as ${os.userInfo().username}\n`);
});
server.listen(3000);
process.on('SIGTERM', () => server.close());
